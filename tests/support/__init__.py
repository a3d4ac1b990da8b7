"""What several tests need: fixtures, fakes of the outside world, and programs that they start."""
