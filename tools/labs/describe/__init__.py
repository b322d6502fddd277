"""What tools/describe.py is made of: questions, a chat endpoint, a file in the making, its check."""
