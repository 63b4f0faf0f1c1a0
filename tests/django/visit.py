"""Serves the site on a free port of this machine and asks it once as each host: python visit.py HOST..."""

import os
import sys
import threading
import urllib.error
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

from django.core.wsgi import get_wsgi_application


class Silent(WSGIRequestHandler):
    def log_message(self, *_):
        pass


server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Silent)
threading.Thread(target=server.serve_forever, daemon=True).start()
for host in sys.argv[1:]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}/products/", headers={"Host": host})
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    print(host, answer.status, answer.read().decode() if answer.status == 200 else "")
server.shutdown()
