"""Networks whose features measures of samples may compare in the place of pixels."""
