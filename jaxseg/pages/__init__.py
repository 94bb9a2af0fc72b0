"""Parts of pages of HTML that are one file each and need no server, no network and no framework.

`frame` is the page around its sections, `tables` are sortable, `charts` are SVG with values under the pointer, and
`cards` shows images under layers that a slider and an opacity mix. Text of users enters only through `frame.escape` and
`frame.embed`. `page.css` and `page.js` are written into each page.
"""
