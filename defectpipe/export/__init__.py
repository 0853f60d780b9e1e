"""Results for other programs: ImageJ and Fiji (ROIs, label images, results tables), COCO, Excel, a figure."""
