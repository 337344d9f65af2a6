"""The committed campaigns: ``evidence/campaigns/<name>/``, each with its report."""

from __future__ import annotations

from pathlib import Path

from aprverify.campaign.journal import CAMPAIGN_FILE
from aprverify.campaign.results import Campaign, read_campaign
from aprverify.evidence.refusals import MissingRun

CAMPAIGNS = "campaigns"


def promoted_campaigns(evidence_dir: Path) -> list[Campaign]:
    """Every committed campaign, by name.

    Raises:
        EvidenceRefused: one of them is damaged, is called otherwise than its folder, or is a link.
    """
    folders = sorted((evidence_dir / CAMPAIGNS).glob("[!.]*/"))
    return [_promoted(folder) for folder in folders if folder.is_dir()]


def _promoted(folder: Path) -> Campaign:
    if folder.is_symlink() or (folder / CAMPAIGN_FILE).is_symlink():
        raise MissingRun(folder, None, "a link: what is committed is not the campaign")
    campaign = read_campaign(folder)
    if campaign.name != folder.name:
        # So that no campaign is kept twice, under two names.
        what = f"the campaign calls itself {campaign.name}: it was renamed or copied"
        raise MissingRun(folder, None, what)
    return campaign
