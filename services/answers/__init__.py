"""Answers from documents: questions with the labels of who asks, and passages that are cited."""
