"""Every section of the operations guide is on the map that says what does it now."""

from __future__ import annotations

from pathlib import Path

MAP = Path(__file__).parents[1] / "docs" / "guide-map.md"

# The guide's own headings, in its order.
SECTIONS = """
System Requirements
Required Permissions
Development Environment
Production Environment
Connection String Format
Automated Setup Script
Migration Architecture
Creating New Migrations
Migration Best Practices
Validation System Architecture
Components
Running Schema Validation
Validation Rules
Database Health Check
Schema Information Queries
Performance Monitoring
Common Issues and Solutions
Debug Mode
Index Strategy
Query Optimization Tips
Connection Pooling
Access Control
Data Protection
Constraint Enforcement
Backup Strategies
Recovery Procedures
Backup Automation
Key Metrics to Monitor
Monitoring Queries
Recovery Time Objective
Recovery Point Objective
Useful PostgreSQL Commands
Docker Development
References
""".strip().splitlines()


def rows() -> list[list[str]]:
    """The cells of the map, without its head."""
    lines = [line for line in MAP.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_section_of_the_guide_is_on_the_map() -> None:
    named = "\n".join(row[0] for row in rows())
    assert [section for section in SECTIONS if section not in named] == []


def test_every_row_says_what_does_it() -> None:
    assert [row for row in rows() if len(row) != 3 or not row[1]] == []
