"""What a person reads in the morning: one self-contained page, a short Markdown summary, a model card.

In: the `Night`; what it didn't reach is None. Out: `report.html`, `MODEL_CARD.md`, `model_card.html` and a
summary's text; the pages hold their pictures and need no script and no request to anywhere. `publish` takes
them to the store and to Prefect.
"""
