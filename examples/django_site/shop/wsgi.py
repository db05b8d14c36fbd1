"""The WSGI callable: corelet --chdir examples/django_site --module shop.wsgi

The handler around it serves the admin's style sheets; on a real site nginx does that, with a location for /static/.
"""

from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = StaticFilesHandler(get_wsgi_application())
