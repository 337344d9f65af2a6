"""Tests of what runs on a CI runner: workflow, actions, container, and the page about them."""
