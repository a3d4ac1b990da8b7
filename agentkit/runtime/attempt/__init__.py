"""One attempt at a purchase, stage by stage: opening, delivery, settling; recovery and closing."""
