"""The search: which settings are best on the user's data, and is the difference real?"""
