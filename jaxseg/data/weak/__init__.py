"""Few labels: points, scribbles, boxes and tags of images in place of full masks.

`marks` has what an annotation is, and `drawing` turns the marks of an image into labels. `reading` reads the files of
annotation tools, with one file for each form; `source` is the training split that they give, and `writing` writes
three of these forms. `made` makes marks from full masks, and `weakened` the split that has them.
"""
