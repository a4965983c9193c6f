"""The command line. Owns nothing but its front door: importing it costs nothing.

``app`` finds the commands, ``common`` has what they share, each other file one group of verbs.
"""


def main() -> None:
    """Run ``dropr`` with the arguments of this process and exit."""
    from dropr_core.system.loading import collector_paused, end_uncollected

    try:
        with collector_paused():
            from dropr_core.cli.app import application

        application().main(prog_name="dropr")
    finally:
        end_uncollected()
