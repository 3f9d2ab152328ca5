"""The fault drill: the real parts, broken again and again while clicks come in, and then counted."""
