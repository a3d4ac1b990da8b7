"""What every door and every client over HTTP has in common, and what children inherit."""
