"""What the study is made of: readers, one section for each publication, the table."""
