"""Names what is at fault once a claim has failed. No verdict rests on it.

`watch` runs one falsifier while the suite's observer stands between it and the subject; `failures`
does that for what failed in a run, in a process of its own (`worker`) and within limits.
"""
