"""Networks whose features measures of samples may compare instead of pixels."""
