"""The web page: upload an image, restore it, compare, download.

``limits`` and ``security`` protect the server, ``jobs`` is the queue, ``bench`` the models at work, ``app`` the HTTP
side, ``server`` the process; ``static`` is what the browser gets.
"""
