"""The table of messages in the project's own database, for OPTIONS["TRANSACTIONAL"]; see `dropr outbox install`.

Of no use, and empty, where nobody asks for it. It is not removed backwards: messages may wait in it.
"""

from typing import Any, ClassVar

from django.db import migrations

from dropr_django.in_transaction import make_table


def forwards(_apps: Any, schema_editor: Any) -> None:
    """Make it."""
    make_table(schema_editor.connection)


class Migration(migrations.Migration):  # type: ignore[misc]  # Django has no types
    """The second."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("dropr_django", "0001_initial")]
    operations: ClassVar[list[Any]] = [migrations.RunPython(forwards, migrations.RunPython.noop)]
