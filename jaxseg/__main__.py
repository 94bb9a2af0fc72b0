"""`python -m jaxseg COMMAND` is the command `jaxseg COMMAND`."""

import sys

from jaxseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
