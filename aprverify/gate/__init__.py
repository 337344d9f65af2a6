"""Which gates are met: judged from the files of a checkout, a policy, and recorded runs."""
