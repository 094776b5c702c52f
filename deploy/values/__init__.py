"""What the charts accept, one module per chart: ``helm/model-service`` is ``deploy/values/model_service.py``.

A chart's module has one class `ChartValues(Chart)`: types and limits only. Defaults and descriptions stay where people
read them, in the chart's ``values.yaml`` (``# --`` above each key); ``make schemas`` joins both into
``values.schema.json``, which Helm enforces. A new chart is a new module; nothing else changes.
"""
