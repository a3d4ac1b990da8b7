"""The subjects of the journal: the events, records and folds of each, side by side.

A subject may import `budget`, because most of them move money, and no other subject.
`journal.events` and `journal.records` list all classes; `journal.fold` applies the folds.
"""
