"""A configuration for a data set, with the reason of each choice: `jaxseg plan`.

`facts` looks at one image, `fingerprint` at the whole data set, `rules` has a pure function for each choice, `writing`
writes the experiment file, and `__main__` is the command.
"""
