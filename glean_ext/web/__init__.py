"""The web page: upload an image, restore it, compare, download.

``limits``, ``request_guard`` and ``connection_timeouts`` protect the server, ``job_queue`` holds the jobs, ``worker``
runs the models, ``app`` has the HTTP addresses, ``server`` is the process; ``static`` is what the browser gets.
"""
