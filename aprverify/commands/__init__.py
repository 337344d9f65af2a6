"""The subcommands of `aprverify`, one file each."""
