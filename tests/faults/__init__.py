"""The suite tests itself: faults in its plugin, its reader and its gate, each seen caught."""
