"""Structures, and numbers that belong to them: tables of labels, and the labels that a store's references hold."""
