"""``python -m bucketd_client.ctl``."""

import sys

from . import main

sys.exit(main())
