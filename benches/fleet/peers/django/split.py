"""Writes the shop's migrations: what makemigrations finds, cut into the same eight steps.

Run inside the project: python split.py
"""

import os
import pathlib

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

import django

django.setup()

from django.db import migrations
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter
from django.apps import apps

LATER = {
    ("product", "brand"): 5,
    ("subscription", "trial_days"): 7,
    ("user", "locale"): 8,
}
TABLES = {"user": 1, "product": 2, "pricehistory": 3, "subscription": 4}
LATER_NAMES = {"products_brand_idx": 5, "price_history_curve_idx": 6, "subscriptions_trial_days_sane": 7}

loader = MigrationLoader(None)
asked = MigrationQuestioner(defaults={"ask_initial": True})
detector = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps), asked)
found = detector.changes(graph=loader.graph, trim_to_apps={"shop"}, convert_apps={"shop"})["shop"]
steps = {number: [] for number in range(1, 9)}
for operation in [operation for migration in found for operation in migration.operations]:
    if isinstance(operation, migrations.CreateModel):
        model = operation.name.lower()
        step = TABLES[model]
        fields = []
        for name, field in operation.fields:
            later = LATER.get((model, name))
            if later:
                steps[later].append(migrations.AddField(operation.name, name, field))
            else:
                fields.append((name, field))
        # Indexes and constraints of later columns come with them.
        options = dict(operation.options)
        for kind in ("constraints", "indexes"):
            for thing in options.pop(kind, []):
                later = LATER_NAMES.get(thing.name, step)
                add = migrations.AddConstraint if kind == "constraints" else migrations.AddIndex
                steps[later].append(add(model, thing))
        steps[step].insert(0, migrations.CreateModel(operation.name, fields, options=options))
        continue
    model = operation.model_name.lower()
    thing = getattr(operation, "index", None) or getattr(operation, "constraint", None)
    if thing is not None:
        steps[LATER_NAMES.get(thing.name, TABLES[model])].append(operation)
    else:
        steps[LATER.get((model, operation.name), TABLES[model])].append(operation)

folder = pathlib.Path("shop/migrations")
folder.mkdir(parents=True, exist_ok=True)
(folder / "__init__.py").touch()
before = None
for number, operations in steps.items():
    name = f"{number:04}_step"
    migration = type("Migration", (migrations.Migration,), {"initial": number == 1})(name, "shop")
    migration.dependencies = [("shop", before)] if before else []
    migration.operations = operations
    (folder / f"{name}.py").write_text(MigrationWriter(migration, include_header=False).as_string())
    before = name
