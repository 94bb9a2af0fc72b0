"""Shares a trained network: a folder, or a repository of the Hugging Face Hub, with a card that says what it is.

    from jaxseg.publish import publish_run

    publish_run(jaxseg.load("runs/camvid"), "hf://OWNER/NAME", licence="apache-2.0")

`jaxseg publish` does the same, and `jaxseg.load("hf://OWNER/NAME")` reads it back (`jaxseg.run.published`).
"""

from jaxseg.publish.publishing import Publication, publish_run

__all__ = ["Publication", "publish_run"]
