"""Finds the commit of a trainer at which a claim fell over; the suite of today judges every commit.

`history` asks git, `frozen` holds the suite still, `trial` judges one commit, `search` narrows the
suspects, `session` leads from GOOD and BAD to a name, `report` says it.
"""
