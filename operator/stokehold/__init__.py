"""Stokehold: decides who gets which GPU, when, and at what price."""
