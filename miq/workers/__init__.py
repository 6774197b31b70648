"""The runners: what worker processes do. Loops only; what a message means is the flows' business."""
