"""What a deploying run leaves for people and programs: report.json, report.html and the table on the terminal."""
