"""The operator's console: live values, alarms and trends of many gateways, in the browser."""
