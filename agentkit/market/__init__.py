"""The words both sides of the market speak: frozen values, and the seams as Protocols."""
