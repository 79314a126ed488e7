"""How the admin writes times: sortable, to the second, in UTC."""

DATETIME_FORMAT = "Y-m-d H:i:s"
