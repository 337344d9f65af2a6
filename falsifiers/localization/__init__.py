"""Names the cause of a failed claim: the first operator, or the first quantity of a step, at fault.

`aprverify localize` reaches `session` by name; no falsifier imports anything from here.
"""
