"""Search: trainings with values of some keys that are drawn or proposed, to find the best of them.

`spaces` are the values that a key may have, `plan` what is searched for, `trials` what has become of each training,
`proposing` which values the next one has, `pruning` and `running` which are stopped early and which is next, `command`
the whole of it, and `report`, `draw`, `importance` and `best` what is written at the end.
"""
