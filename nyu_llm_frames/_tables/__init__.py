"""Tables: frames and files, read in pieces; new columns, and tables written with them."""
