"""Full masks from the forms of other tools, for `jaxseg convert`: each form as a collection of images with labels.

`collection` has what a form gives, `annotated` draws the files of annotation tools (read by `jaxseg.data.weak`),
`paired`, `objects`, `packed` and `stacks` read masks that are pictures, `colors` their colours, `forms` has the table
of the forms, and `writing` writes a collection as a folder of images and masks.
"""
