"""What `import jaxseg` gives beside the other rooms: `create_model`, the lists of names, `train` as a call."""
