"""Pictures of runs as SVG: each follows the reader's light or dark scheme, and runs no script."""
