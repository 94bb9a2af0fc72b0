"""Pages that show what came out of a run, or of several on the same images; each is one file to open in a browser.

`collecting` scores a split and keeps what a page says of its images, `parts` makes the sections about numbers, `images`
chooses and draws the images, and `run_page` and `several_page` put the pages together.
"""
