"""Every catalogued model, and a user's own, keeps the contract."""

from pathlib import Path

from bitsearch.testing import contract, contracts

USERS = Path(__file__).parent / "user_model"

globals().update(contracts())
TestUser = contract(str(USERS / "mine.py"))
