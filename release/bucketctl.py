"""bucketctl as a program of its own; pip's would import more before it starts."""

import sys

from bucketd_client.ctl import main

sys.exit(main())
