"""What runs over stored data: profiles, backfill, parity, quality and drift."""
