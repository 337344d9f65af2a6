"""The files kept beside a run, and beside all runs: what each must read, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from aprverify.campaign.promoted import CAMPAIGNS
from aprverify.campaign.report import render_campaigns
from aprverify.campaign.results import Campaign
from aprverify.evidence.index import HISTORY_PICTURE, render_index
from aprverify.evidence.records import Run
from aprverify.evidence.report import (
    CURVES_PICTURE,
    ERRORS_PICTURE,
    MARGINS_PICTURE,
    MATRIX_PICTURE,
    TEETH_PICTURE,
    pictures_of,
    render_report,
)
from aprverify.evidence.saving import write_text
from aprverify.evidence.tolerances import trials_of
from aprverify.evidence.tolerances_markdown import render_tolerances
from aprverify.views.pictures.curves import render_curves, render_errors
from aprverify.views.pictures.history import render_history
from aprverify.views.pictures.margins import render_margins
from aprverify.views.pictures.matrix import render_matrix
from aprverify.views.pictures.teeth import render_teeth

REPORT_FILE = "report.md"
INDEX_FILE = "README.md"
TOLERANCES_FILE = "tolerances.md"
_RENDER = {
    MARGINS_PICTURE: render_margins,
    TEETH_PICTURE: render_teeth,
    CURVES_PICTURE: render_curves,
    ERRORS_PICTURE: render_errors,
    MATRIX_PICTURE: render_matrix,
}


def files_of_run(run: Run) -> dict[str, str]:
    """The report and its pictures, by file name."""
    return {REPORT_FILE: render_report(run), **pictures(run)}


def pictures(run: Run) -> dict[str, str]:
    """The pictures that the report of a run shows, by file name."""
    return {name: _RENDER[name](run) for name in pictures_of(run)}


def files_of_index(runs: Sequence[Run]) -> dict[str, str]:
    """The index and its picture, by file name. They do not judge age, which any edit changes."""
    history = {HISTORY_PICTURE: render_history(runs)} if runs else {}
    return {INDEX_FILE: render_index(runs, None), **history}


def files_of_trials(runs: Sequence[Run], campaigns: Sequence[Campaign]) -> dict[str, str]:
    """The page of tolerances and the reports of the campaigns, by path below the evidence."""
    files = {}
    if runs:
        trials = trials_of(runs, campaigns)
        files[TOLERANCES_FILE] = render_tolerances(trials, runs, campaigns)
    if campaigns:
        files[f"{CAMPAIGNS}/{INDEX_FILE}"] = render_campaigns(campaigns)
    for campaign in campaigns:
        for name, text in files_of_campaign(campaign).items():
            files[f"{CAMPAIGNS}/{campaign.name}/{name}"] = text
    return files


def files_of_campaign(campaign: Campaign) -> dict[str, str]:
    """The report of a campaign, by file name."""
    return {REPORT_FILE: render_campaigns([campaign])}


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write them.

    Raises:
        OSError: it names the file.
    """
    for name, text in files.items():
        write_text(folder / name, text)


def differing(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Those that are absent there, or read otherwise."""
    paths = {folder / name: text.encode() for name, text in files.items()}
    return [path for path, data in paths.items() if not path.is_file() or path.read_bytes() != data]
