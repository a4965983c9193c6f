"""The one table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """As `makemigrations` writes it."""

    initial = True
    dependencies = []  # noqa: RUF012
    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sku", models.IntegerField()),
                ("count", models.IntegerField(default=1)),
                ("task_id", models.CharField(default="", max_length=36)),
                ("mailed", models.BooleanField(default=False)),
            ],
        )
    ]
