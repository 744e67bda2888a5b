"""Linen building blocks that families of networks share."""
